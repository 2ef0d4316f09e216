# SPDX-License-Identifier: GPL-3.0-or-later
"""The losses of Eq. 9-15 and the networks that DISTS looks through. Knows no other wing."""
