"""What PyInstaller cannot see in wrtc (`import webrtc`): its native half, and a licence that it reads at start."""

from PyInstaller.utils.hooks import collect_data_files

hiddenimports = ["wrtc"]
datas = collect_data_files("webrtc")
