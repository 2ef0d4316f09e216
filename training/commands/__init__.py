# SPDX-License-Identifier: GPL-3.0-or-later
"""What the words of `anydressing` do beyond reading arguments; none knows another."""
