# SPDX-License-Identifier: GPL-3.0-or-later
"""From a wardrobe as people keep it, or as a data set publishes it, to a manifest with masks."""
