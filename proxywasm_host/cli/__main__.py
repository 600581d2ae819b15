"""``python -m proxywasm_host.cli`` is ``proxywasm``."""

import sys

from proxywasm_host.cli import main

sys.exit(main())
