// Loaded into the relays on Node with `node --expose-gc --require`: SIGUSR2 collects garbage, so that memory is compared
// without what V8 would have freed anyway. It does nothing until the signal comes.
process.on('SIGUSR2', () => {
  global.gc();
  global.gc();
});
