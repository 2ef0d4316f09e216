# SPDX-License-Identifier: GPL-3.0-or-later
"""From picture files to what a step reads: manifest, pictures, cache, and what is wrong with them."""
