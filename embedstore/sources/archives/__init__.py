"""Images inside tar and zip files, read in place: nothing is unpacked."""
