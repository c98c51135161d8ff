/**
 * What a store needs as soon as it has registered: direct connections to devices, when there should be one, and what goes on
 * beside messages. It is loaded when a store is made, since it takes a login more round trips until it is needed.
 *
 * Rule: nothing of the core imports this, nor what only this imports. JavaScript only: in Python there is nothing to load.
 */
export { watchNetwork } from '../../client/network.js';
export { makeConnection } from '../../peer/engine.js';
export { PeerSession } from '../../peer/session.js';
export { PeerServices } from '../services.js';
export { Dialer } from './dialer.js';
export { DirectLogin } from './direct_login.js';
export { DeviceListener } from './listener.js';
export { watchPage } from './page.js';
export { acceptKey, unwatchAll, watchAll, watchEnded } from './requests.js';
