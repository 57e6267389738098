"""Reads data into rows with int64 ids; the only place where string ids are known besides the edges."""
