/**
 * The dashboard at /ui: one event a second into the store, then every panel draws what it holds.
 *
 * Plain DOM and uPlot. What the server sends is in ../server/ui/dashboard-events.ts.
 */
import { AdaptersPanel } from './adapters-panel.js';
import { Charts } from './charts.js';
import { ChatPanel } from './chat-panel.js';
import { Connection } from './connection.js';
import { Header } from './header.js';
import { Keys } from './keys.js';
import { PoolMap } from './pool-map.js';
import { Store } from './store.js';

const store = new Store();
const keys = new Keys();
const header = new Header();
const pool = new PoolMap();
const charts = new Charts(store);
const chat = new ChatPanel(keys, store);
const adapters = new AdaptersPanel(store, (name) => chat.chatWith(name));

/** Names come and go; whoever types sees new ones soon enough. */
const SUGGEST_EVERY_EVENTS = 30;
let numEvents = 0;

const connection = new Connection(keys, {
  event(event) {
    store.take(event);
    header.draw(event);
    pool.draw(store, event);
    charts.draw(event);
    adapters.draw();
    if (numEvents++ % SUGGEST_EVERY_EVENTS === 0) void chat.suggest();
  },
  down(reason) {
    if (reason === undefined) return;
    header.say('down', 'not connected');
    header.notice(reason);
  },
});
connection.open();
