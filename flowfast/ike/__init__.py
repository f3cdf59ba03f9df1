"""The IKE daemons of this router: which ones run here, and what their own files and sockets say they are set to.

Reads only. Of the files it keeps a closed list of options; values of anything else, and all of `secrets`, are stepped
over and dropped with the file's text.
"""

from flowfast.ike.find import find_daemons

__all__ = ["find_daemons"]
