"""What people look at: result tables, contact sheets, pages, maps."""
