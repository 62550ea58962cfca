"""What a run is, as plain data: toggles, stages, studies, profiles, settings, identity. Standard library only."""
