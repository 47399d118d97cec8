"""What did the YAML say?

`document` reads a file with the line of every key, `settings` and its neighbours are the schema, `loader` puts a Configuration
together: every error of all files at once, each with file, line, key and a hint. `cross_checks` compares sections with each other,
`tables`, `route_review` and `spellings` look at route tables, `risks` warns of what is allowed and dangerous, `restart` says which
keys are live, and `effective` shows what is in force.
"""
