"""What people look at: tables and plots of figures that other modules measured."""
