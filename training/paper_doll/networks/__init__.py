# SPDX-License-Identifier: GPL-3.0-or-later
"""The small networks of the paper-doll world: its base model, its recognisers and its parser."""
