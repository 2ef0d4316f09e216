# SPDX-License-Identifier: GPL-3.0-or-later
"""What several tests need that is no fixture: processes, a toy to train, files of random numbers."""
