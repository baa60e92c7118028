int sluice_x;
