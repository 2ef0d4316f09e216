# SPDX-License-Identifier: GPL-3.0-or-later
"""The frozen base model that is dressed, opened from a checkpoint or a diffusers folder. Knows no other wing."""
