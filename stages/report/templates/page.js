"use strict";
// What makes a page live: charts, tables that are sorted and filtered, series that are isolated, and
// the image behind a point of a map.
(() => {
  const views = [];  // {view, group} of every chart that was drawn
  const isolated = new Map();  // group -> numbers of its isolated series; none are all
  const onlyOf = (group) => {
    if (!isolated.has(group)) isolated.set(group, new Set());
    return isolated.get(group);
  };
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // ---- charts

  const embed = async (chart) => {
    const spec = JSON.parse(chart.querySelector("script").textContent);
    // `ast`: expressions are interpreted, for the page's policy allows no code but the page's own.
    const options = { mode: "vega-lite", renderer: "svg", ast: true, actions: false,
      defaultStyle: false, tooltip: { theme: "page", disableDefaultStyle: true } };
    const { view } = await vegaEmbed(chart, spec, options);
    views.push({ view, group: chart.closest("figure").dataset.group });
    return { view, chart };
  };

  const isolate = (group) => {
    const only = onlyOf(group), mine = `[data-group="${CSS.escape(group)}"]`;
    for (const one of views)
      if (one.group === group) one.view.signal("only", [...only]).runAsync();
    for (const button of document.querySelectorAll(`button.all${mine}`)) button.hidden = !only.size;
    for (const button of document.querySelectorAll(`button.series${mine}`)) {
      const pressed = only.has(Number(button.dataset.series));
      button.setAttribute("aria-pressed", String(pressed));
      button.closest("tr")?.classList.toggle("faint", only.size > 0 && !pressed);
    }
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.series, button.all");
    if (!button) return;
    const { group, series } = button.dataset, only = onlyOf(group);
    if (series === undefined) only.clear();
    else if (!only.delete(Number(series))) only.add(Number(series));
    isolate(group);
  });

  // ---- tables

  // A cell's number, or its text; nothing is after everything.
  const valueOf = (cell) => {
    const text = cell.textContent.trim();
    const number = parseFloat(text.replaceAll(",", ""));
    return cell.classList.contains("text") || Number.isNaN(number) ? text : number;
  };
  const compare = (one, other) => {
    if (typeof one === "number" && typeof other === "number") return one - other;
    if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
    return collator.compare(one, other);
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        // Numbers are asked for from the largest down, words from their first letter on.
        const first = head.classList.contains("text") ? "ascending" : "descending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
        rows.sort(([one], [other]) => (one === "" || other === ""
          ? (one === "") - (other === "") : sign * compare(one, other)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  };

  const filterable = (table) => {
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = `filter ${table.tBodies[0].rows.length} rows`;
    input.setAttribute("aria-label", "filter rows");
    const count = document.createElement("span");
    table.parentElement.before(input, count);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = [...table.tBodies[0].rows];
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
      const left = rows.filter((row) => !row.hidden);
      count.textContent = words.length ? ` ${left.length} of ${rows.length}` : "";
      // The figures follow a table whose rows they draw.
      const buttons = left.map((row) => row.querySelector("button.series")).filter(Boolean);
      if (!buttons.length) return;
      const { group } = buttons[0].dataset, only = onlyOf(group);
      only.clear();
      if (words.length) for (const one of buttons) only.add(Number(one.dataset.series));
      isolate(group);
    });
  };

  for (const table of document.querySelectorAll("table.live")) {
    const rows = table.tBodies[0].rows.length;
    if (rows > 1) sortable(table);
    if (rows > 7 || table.classList.contains("always")) filterable(table);
  }

  // ---- maps: near a point, or after a tap on one, its image is shown, and it is ringed in every panel

  const NEAR = 16, SIDE = 96;
  const tile = document.createElement("div");
  tile.className = "tile";
  tile.hidden = true;
  const image = document.createElement("i");
  const name = document.createElement("span");
  tile.append(image, name);
  document.body.append(tile);

  // The point nearest to a place on the screen, and where that is; null: none is near.
  const nearest = ({ view, chart }, x, y) => {
    const box = chart.querySelector("svg").getBoundingClientRect();
    const [x0, y0] = view.origin(), padding = view.padding();
    const left = x0 + padding.left, top = y0 + padding.top;
    const toX = view.scale("x"), toY = view.scale("y");
    let found = null, least = NEAR;
    for (const point of view.data("points")) {
      const px = box.left + left + toX(point.x), py = box.top + top + toY(point.y);
      const distance = Math.hypot(px - x, py - y);
      if (distance <= least) { least = distance; found = { index: point.i, x: px, y: py }; }
    }
    return found;
  };

  const showTile = (at, sheet, texts) => {
    const columns = Number(sheet.dataset.columns);
    const rows = Math.ceil(texts.length / columns);
    const left = (at.index % columns) * SIDE, top = Math.floor(at.index / columns) * SIDE;
    image.style.backgroundImage = `url(${sheet.src})`;
    image.style.backgroundSize = `${columns * SIDE}px ${rows * SIDE}px`;
    image.style.backgroundPosition = `-${left}px -${top}px`;
    name.textContent = texts[at.index];
    tile.hidden = false;
    // On the side of the point where there is room, never below the finger.
    const { offsetWidth: width, offsetHeight: height } = tile;
    const right = at.x + 14 + width <= document.documentElement.clientWidth;
    const below = at.y + 14 + height <= innerHeight;
    tile.style.left = `${Math.max(4, right ? at.x + 14 : at.x - 14 - width)}px`;
    tile.style.top = `${Math.max(4, below ? at.y + 14 : at.y - 14 - height)}px`;
  };

  const hoverable = (figure, panels) => {
    const sheet = figure.querySelector("img.sheet");
    const texts = JSON.parse(figure.querySelector("script.texts").textContent);
    const ring = (index) => {
      for (const { view } of panels) view.signal("near", index).runAsync();
    };
    const hide = () => { if (!tile.hidden) { tile.hidden = true; ring(-1); } };
    for (const panel of panels) {
      const show = (event) => {
        const at = nearest(panel, event.clientX, event.clientY);
        if (!at) { hide(); return; }
        showTile(at, sheet, texts);
        ring(at.index);
      };
      for (const kind of ["pointerenter", "pointermove", "click"])
        panel.chart.addEventListener(kind, show);
      panel.chart.addEventListener("pointerleave", hide);
    }
    addEventListener("scroll", hide, { passive: true });
  };

  const draw = async (figure) => {
    const panels = await Promise.all([...figure.querySelectorAll(".chart")].map(embed));
    if (figure.querySelector("img.sheet")) hoverable(figure, panels);
  };

  const figures = [...document.querySelectorAll("figure")];
  const failed = (figure) => (error) => {
    console.error(`${figure.id}: ${error.message}`);
    figure.classList.add("failed");
  };
  window.drawn = Promise.all(figures.map((figure) => draw(figure).catch(failed(figure))));
})();
