"use strict";
// The image behind a point of a map, shown while the pointer is near it, or after a tap; the same
// image is ringed in every panel.
(() => {
  const NEAR = 16, SIDE = 96;
  const tile = document.createElement("div");
  tile.className = "tile";
  tile.hidden = true;
  const image = document.createElement("i");
  const name = document.createElement("span");
  tile.append(image, name);
  document.body.append(tile);

  // The points of a panel in its own units, one for each image, in their order.
  const panelOf = (svg) => {
    const points = [...svg.querySelectorAll("g[id$='points'] use")]
      .map((point) => [Number(point.getAttribute("x")), Number(point.getAttribute("y"))]);
    const ring = document.createElementNS(svg.namespaceURI, "circle");
    ring.setAttribute("class", "ring");
    ring.setAttribute("r", "5");
    ring.style.display = "none";
    svg.append(ring);
    return { svg, points, ring };
  };

  // The number of the point nearest to a place on the screen, and where that one is; -1: none near.
  const nearest = ({ svg, points }, x, y) => {
    const matrix = svg.getScreenCTM();
    let found = { index: -1, distance: NEAR };
    points.forEach((point, index) => {
      const px = matrix.a * point[0] + matrix.e, py = matrix.d * point[1] + matrix.f;
      const distance = Math.hypot(px - x, py - y);
      if (distance <= found.distance) found = { index, distance, x: px, y: py };
    });
    return found;
  };

  const showTile = (at, sheet, labels) => {
    const columns = Number(sheet.dataset.columns);
    const rows = Math.ceil(labels.length / columns);
    const left = (at.index % columns) * SIDE, top = Math.floor(at.index / columns) * SIDE;
    image.style.backgroundImage = `url(${sheet.src})`;
    image.style.backgroundSize = `${columns * SIDE}px ${rows * SIDE}px`;
    image.style.backgroundPosition = `-${left}px -${top}px`;
    name.textContent = labels[at.index];
    tile.hidden = false;
    // On the side of the point where there is room, never below the finger.
    const { offsetWidth: width, offsetHeight: height } = tile;
    const right = at.x + 14 + width <= document.documentElement.clientWidth;
    const below = at.y + 14 + height <= innerHeight;
    tile.style.left = `${Math.max(4, right ? at.x + 14 : at.x - 14 - width)}px`;
    tile.style.top = `${Math.max(4, below ? at.y + 14 : at.y - 14 - height)}px`;
  };

  for (const figure of document.querySelectorAll("figure.hover")) {
    const sheet = figure.querySelector("img.sheet");
    const labels = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const panels = [...figure.querySelectorAll("svg")].map(panelOf);
    const ringAll = (index) => {
      for (const { points, ring } of panels) {
        ring.style.display = index < 0 ? "none" : "";
        if (index < 0) continue;
        ring.setAttribute("cx", points[index][0]);
        ring.setAttribute("cy", points[index][1]);
      }
    };
    const hide = () => { tile.hidden = true; ringAll(-1); };
    for (const panel of panels) {
      const show = (event) => {
        const at = nearest(panel, event.clientX, event.clientY);
        if (at.index < 0) { hide(); return; }
        showTile(at, sheet, labels);
        ringAll(at.index);
      };
      for (const kind of ["pointerenter", "pointermove", "click"])
        panel.svg.addEventListener(kind, show);
      panel.svg.addEventListener("pointerleave", hide);
    }
    addEventListener("scroll", hide, { passive: true });
  }
})();
