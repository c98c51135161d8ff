/**
 * Names of properties that only our own modules use. The build makes them short (`$0`, `$1` …), which makes the core some
 * 600 bytes smaller, gzipped.
 *
 * A name may be here when it is no property of anything that an application gets or gives, of JSON on the wire, or of the
 * platform, and is nowhere used as a string. `test/build.test.js` looks for such a use. A name that is not here stays as it
 * is, so a new one needs no thought.
 */
const NAMES = `
  accepted acknowledge acknowledged addressed admit announced answeredBy answers arrived arriving asker atOnce attach
  attempting attempts attemptSeconds awaitsAnswer belongs blocks broke callLater calls candidates carrier catchUp
  checkNotEnded checkOther chunks client clockFrom confirmed controlReceived counted current deadline delayed
  deliveries dialer directClosed directFeatures directOpened doubt drained dropRestoredWatches effects expect fail feed
  fileLimit filled findDevice fingerprints flying follow forAny forgetDevice formerNonces fragments frozen giveUp gone
  granted greeted greeting hadRelay handedOver handOver hangUp hasLeft hasRoom hasten hasWaiting healSeconds heard
  helloSent here holdBack holds hushed inbox incoming isCurrent isGood isKept isNewProgram isOpen isOver isRunning isSilent
  isTooLarge isUrgent iterate joining keep keeps keptHere keyChanged known knows leaving leftovers letGo limited
  loadServices look lose made mailbox makeDeviceRoom maxMessage mayGo mayRenew moved movedTo named needsAttempt
  needServer newestSent nextDeadline nextFrame nextLookup noPath notBefore obey ofConnection offended offerDeadline
  onWay openChannel orderly ourOffer outbox outcome outgoing over overdue owner parted pathChanged pathMode paths peer
  phase pinged pingIn poke polite ponged processed publish pump putTracks reach receive reconsider registeredAgain
  relayClosed relayed relayHello relayMissing relayOnly relayPath renew renews requireInTime rest resting room
  sayGoodbye schedule seams sendControl sendFrame sending services setTracks setUnanswered setup shown signalingEnded
  signalingLost signalingReturned silentIn slots started stood stranger takeBack takeOver tell tellNow thawed
  theirStream ticket timers told tries trust unaccepted unacknowledged unanswered unconfirmed unreadable views
  wantAgain wanted watched withdraw withdrawn
`
  .trim()
  .split(/\s+/);

/** The cache in which Terser looks for what to call them: the same in each file, whatever else is in it. */
export const nameCache = () => ({
  props: { props: Object.fromEntries(NAMES.map((name, at) => [`$${name}`, `$${at.toString(36)}`])) },
});

/** What Terser may rename. */
export const properties = { regex: new RegExp(`^(?:${NAMES.join('|')})$`) };

export { NAMES as INTERNAL_NAMES };
