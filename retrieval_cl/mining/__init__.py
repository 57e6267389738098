"""Hard negatives from vectors and ids: candidates, rules, the table of negatives."""
