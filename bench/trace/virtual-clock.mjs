export class VirtualClock {}
