use rand_core::OsRng as Dice;
fn f(_: Dice) {}
