/**
 * Which paths are the dashboard's: files that anybody may have, for there is nothing in them, and data.
 */
export const UI_DATA = '/ui/events';

const FILES: ReadonlySet<string> = new Set([
  ...['/ui', '/ui/', '/ui/app.js', '/ui/app.css', '/ui/icon.svg'],
]);

export const isUiFile = (path: string): boolean => FILES.has(path);
/** One that watches the server and does not make it work: open to admins while it drains, too. */
export const isUiPath = (path: string): boolean => path === UI_DATA || isUiFile(path);
