"""The Flask application that runs a bundle, for people and for programs.

`app.create_app` makes the application, `server.serve` runs it. The package imports neither TensorFlow nor Keras nor
pandas, and a bundle contains a copy of it.
"""
