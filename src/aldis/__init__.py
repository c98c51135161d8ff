"""Aldis: two programs, anywhere, find each other by name and talk directly and privately over WebRTC."""
