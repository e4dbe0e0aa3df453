# SPDX-License-Identifier: GPL-2.0-or-later
"""See `storage.spm.program`."""

import sys

from storage.spm import program

if __name__ == "__main__":
    program.main(sys.argv[1], int(sys.argv[2]))
