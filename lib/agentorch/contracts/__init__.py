"""What is accepted at a door: one reader, one validator, for every way in.

A document is completed (the minimal form gets its defaults), checked against its schema and then
for what a schema can't say. All problems are reported at once, each with its place, as
`.steps[2].agent: 'cluade' is unknown (did you mean 'claude'?)`.
"""
