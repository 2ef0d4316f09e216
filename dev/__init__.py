# SPDX-License-Identifier: GPL-3.0-or-later
"""What developers run: a real ComfyUI, found or fetched; the demo; the browser. Nothing here is shipped to artists."""
