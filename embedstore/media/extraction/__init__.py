"""Pictures out of files that are no pictures: pages of PDF files and frames of videos."""
