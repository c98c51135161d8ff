"""Files between two stores."""
