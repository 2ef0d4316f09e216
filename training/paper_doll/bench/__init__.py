# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench: held-out outfits of the paper-doll world, dressed and measured against the exact truth."""
