"""What crosses the wire: pure values and functions that the plant and the cloud share.

No clock, no socket, no file. This is the only part of the appliance that `cloud_sync` may import.
"""
