/**
 * Finds where a JSON value ends that begins a text, piece by piece.
 *
 * Trusts that the value is well-formed: a grammar has seen to that. Called by answer-parser.ts.
 */
export class JsonEnd {
  private depth = 0;
  private inString = false;
  private escaped = false;

  /** How many of the piece's characters belong to the value; `ended` = the last of them ends it. */
  push(piece: string): { length: number; ended: boolean } {
    for (let i = 0; i < piece.length; i++) {
      if (this.ends(piece.charAt(i))) return { length: i + 1, ended: true };
    }
    return { length: piece.length, ended: false };
  }

  private ends(character: string): boolean {
    if (this.escaped) {
      this.escaped = false;
    } else if (this.inString) {
      if (character === '\\') this.escaped = true;
      else if (character === '"') this.inString = false;
    } else if (character === '"') {
      this.inString = true;
    } else if (character === '{' || character === '[') {
      this.depth++;
    } else if (character === '}' || character === ']') {
      return --this.depth === 0;
    }
    return false;
  }
}
