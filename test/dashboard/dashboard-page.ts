/** The dashboard in a real Chromium: what a person sees and does there, and what the browser says of it. */
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';

export class DashboardPage {
  /** Of the console: scripts that failed, what the page's policy forbade, what could not be loaded. */
  readonly errors: string[] = [];
  /** Everything that was asked for. */
  readonly requests: string[] = [];

  static async open(
    browser: Browser,
    url: string,
    options: BrowserContextOptions & { before?: (page: Page) => Promise<void> } = {},
  ): Promise<DashboardPage> {
    const { before, ...context } = options;
    const page = await browser.newPage(context);
    page.setDefaultTimeout(15_000);
    const dashboard = new DashboardPage(page);
    await before?.(page);
    await page.goto(url);
    return dashboard;
  }

  private constructor(readonly page: Page) {
    page.on('pageerror', (error) => this.errors.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') this.errors.push(message.text());
    });
    page.on('request', (request) => this.requests.push(request.url()));
  }

  state(): Promise<string | null> {
    return this.page.locator('#state').textContent();
  }

  async is(state: string): Promise<void> {
    await this.page.locator(`#state[data-state="${state}"]`).waitFor();
  }

  /** kind -> pages, of the map's cells at one moment. */
  async pagesOnMap(): Promise<Record<string, number>> {
    const cells = await this.page
      .locator('#pool-map > i')
      .evaluateAll((all) => all.map((cell) => [cell.dataset.kind, Number(cell.dataset.pages)]));
    const pages: Record<string, number> = {};
    for (const [kind, count] of cells as [string, number][]) {
      pages[kind] = (pages[kind] ?? 0) + count;
    }
    return pages;
  }

  /** Moments that a chart shows. */
  async pointsOf(chart: string): Promise<number> {
    return Number(await this.page.locator(`#chart-${chart}`).getAttribute('data-points'));
  }

  /** tier -> what stands beside it. */
  async tiers(): Promise<Record<string, string>> {
    const chips = await this.page.locator('#tiers button').allTextContents();
    return Object.fromEntries(chips.map((text) => text.trim().split(/ (?=[\d,]+$)/)));
  }

  /** Of the rows in sight. */
  names(): Promise<string[]> {
    return this.page.locator('.adapters tbody .name').allTextContents();
  }

  async ask(content: string, { model = '', lane = 'Model' } = {}): Promise<void> {
    await this.page.getByRole('combobox', { name: lane, exact: true }).fill(model);
    await this.page.getByLabel('Message').fill(content);
    await this.page.getByRole('button', { name: 'Send' }).click();
  }

  /** The newest answer, when it has ended. */
  async answer(): Promise<{ text: string; facts: string }> {
    const newest = this.page.locator('.lane:not([hidden]) article').last();
    await newest.and(this.page.locator('[aria-busy=false]')).waitFor();
    return {
      text: (await newest.locator('p').last().textContent()) ?? '',
      facts: (await newest.locator('small').textContent()) ?? '',
    };
  }
}
