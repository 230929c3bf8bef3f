#pragma once
#include "sixteen.h"
