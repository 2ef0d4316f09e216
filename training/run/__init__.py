# SPDX-License-Identifier: GPL-3.0-or-later
"""A run, whatever it trains: its configuration, folder, loop, chance, display and end. Knows no other wing."""
