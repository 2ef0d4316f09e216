# SPDX-License-Identifier: GPL-3.0-or-later
"""What a picture is worth, and which variants of the method are compared."""
