"""Sky alerts: notices become one typed `Alert`, its sky map ranks fields, and the fields tell what is reduced first."""
