"""The descriptor pool of Erg's own messages.

It is not protobuf's default pool: `tritonclient` registers messages of the same full names there, and one process (a
test, the load tester, a notebook) may hold both.
"""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
