"""The stories of the command line as functions: config in, result out, no printing. Each file tells one."""
