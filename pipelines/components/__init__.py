# SPDX-License-Identifier: Apache-2.0
"""One component a file: flat arguments in, one `pyfsb` verb, a record's URI out."""
