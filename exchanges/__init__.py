"""What each exchange says on the wire: one package a venue, sans IO. Sockets are the collector's."""
