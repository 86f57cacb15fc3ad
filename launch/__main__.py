"""`python -m launch` is `laconic`, also where the project lies in a folder and is not installed, as in a submitted job."""

from launch.cli import app

app()
