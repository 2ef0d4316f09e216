# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing on diffusers' U-Net: the adapter, both roles of the frozen U-Net, and sampling."""
