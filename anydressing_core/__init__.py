# SPDX-License-Identifier: GPL-3.0-or-later
"""The method: torch tensors in, torch tensors out. It knows no host."""
