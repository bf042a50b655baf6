include!("elsewhere.txt");
