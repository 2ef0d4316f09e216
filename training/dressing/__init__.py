# SPDX-License-Identifier: GPL-3.0-or-later
"""What `anydressing train` trains: model, data and losses joined."""
