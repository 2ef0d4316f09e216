# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper-doll world: a world that paints people, networks that learn it, a bench that measures in it."""
